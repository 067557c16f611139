"""Every number of the two source texts, "The Hessian & Second-Order Analysis" and "The Hessian".

The rows are those of the texts, in their order; each through the public API.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hesskit

pytestmark = pytest.mark.usefixtures("float64")


def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def nine(p):
    return p[0] ** 4 + p[1] ** 4 - 2 * p[0] ** 2 - 2 * p[1] ** 2 + 1


def test_example_1_mixed_partials_agree():
    found = hesskit.hessian(lambda p: p[0] ** 2 * p[1] + jnp.sin(p[0] * p[1]), jnp.array([1.0, 2]))
    expected = [[0.3628103, -0.2347417], [-0.2347417, -0.9092974]]
    np.testing.assert_allclose(found, expected, atol=5e-8)


def test_theorem_1_and_proposition_1_symmetry_and_counts():
    for n, distinct in ((2, 3), (100, 5050)):
        found = hesskit.check_hessian(lambda p: jnp.sum(p[:-1] ** 2 * p[1:]), jnp.ones(n))
        assert bool(found.symmetric & found.is_jacobian)
        assert found.num_distinct == distinct


def test_examples_2_and_3_bowl_and_saddle():
    bowl = lambda p: p[0] ** 2 + 4 * p[1] ** 2
    np.testing.assert_allclose(hesskit.definiteness(bowl, jnp.ones(2)).eigenvalues, [2, 8])
    assert float(hesskit.condition_number(bowl, jnp.ones(2))) == pytest.approx(4)
    saddle = hesskit.classify_critical_point(lambda p: p[0] ** 2 - p[1] ** 2, jnp.zeros(2))
    np.testing.assert_allclose(saddle.eigenvalues, [-2, 2])
    assert saddle.kind == hesskit.CriticalKind.SADDLE


def test_example_4_the_hessian_of_a_sigmoid_loss_depends_on_the_data():
    x, y = jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]]), jnp.array([1.0, 0.0, 1.0])
    loss = lambda w, x, y: jnp.sum((jax.nn.sigmoid(x @ w) - y) ** 2) / 2
    w = jnp.array([0.2, -0.1])
    s = jax.nn.sigmoid(x @ w)
    d1, d2 = s * (1 - s), s * (1 - s) * (1 - 2 * s)
    expected = jnp.einsum("i,ij,ik->jk", d1**2 + (s - y) * d2, x, x)
    np.testing.assert_allclose(hesskit.hessian(loss, w, args=(x, y)), expected, rtol=1e-12)
    other = hesskit.hessian(loss, w, args=(2 * x, y))
    assert np.max(np.abs(other - expected)) > 0.01


@pytest.mark.parametrize(
    ("matrix", "kind"),
    [
        ([[2.0, 0.0], [0.0, 3.0]], "POSITIVE_DEFINITE"),
        ([[-2.0, 1.0], [1.0, -3.0]], "NEGATIVE_DEFINITE"),
        ([[1.0, 1.0], [1.0, 1.0]], "POSITIVE_SEMIDEFINITE"),
        ([[-1.0, 1.0], [1.0, -1.0]], "NEGATIVE_SEMIDEFINITE"),
        ([[1.0, 2.0], [2.0, 1.0]], "INDEFINITE"),
    ],
)
def test_definition_3_and_the_minors(matrix, kind):
    found = hesskit.definiteness(jnp.array(matrix))
    assert found.kind.name == kind
    np.testing.assert_allclose(found.minors, [matrix[0][0], np.linalg.det(matrix)], atol=1e-12)


@pytest.mark.slow
def test_example_5_nine_critical_points():
    points = hesskit.find_critical_points(nine, jnp.array([[-2.0, 2.0], [-2.0, 2.0]]))
    table = {
        tuple(np.round(np.asarray(p.params)).astype(int).tolist()): (
            p.kind.name,
            np.round(np.asarray(p.eigenvalues), 6).tolist(),
            round(float(p.value), 9),
        )
        for p in points
    }
    expected = {}
    for x in (-1, 0, 1):
        for y in (-1, 0, 1):
            zeros = [x, y].count(0)
            expected[x, y] = [
                ("MINIMUM", [8, 8], -1),
                ("SADDLE", [-4, 8], 0),
                ("MAXIMUM", [-4, -4], 1),
            ][zeros]
    assert len(points) == 9
    assert table == expected
    off = hesskit.classify_critical_point(nine, jnp.array([0.3, 0.0]))
    assert off.kind == hesskit.CriticalKind.NOT_CRITICAL


@pytest.mark.parametrize(
    ("fn", "kind", "order"),
    [
        (lambda p: p[0] ** 4 + p[1] ** 4, "DEGENERATE_MINIMUM", 4),
        (lambda p: p[0] ** 4 - p[1] ** 4, "DEGENERATE_NEITHER", 4),
        (lambda p: p[0] ** 3 - 3 * p[0] * p[1] ** 2, "DEGENERATE_NEITHER", 3),
    ],
)
def test_remark_2_and_example_8_where_the_hessian_is_zero(fn, kind, order):
    found = hesskit.classify_critical_point(fn, jnp.zeros(2))
    assert (found.kind.name, int(found.order)) == (kind, order)
    silent = hesskit.classify_critical_point(fn, jnp.zeros(2), max_order=2)
    assert silent.kind == hesskit.CriticalKind.INCONCLUSIVE


def test_theorem_3_and_example_6_taylor():
    model = hesskit.taylor(lambda p: jnp.exp(p[0] + p[1]), jnp.zeros(2))
    for h in ([0.1, 0.2], [-1.0, 0.3]):
        s = sum(h)
        assert float(model.displaced(jnp.array(h))) == pytest.approx(1 + s + s * s / 2)
    np.testing.assert_allclose(hesskit.definiteness(model.operator).eigenvalues, [0, 2], atol=1e-14)
    order = hesskit.taylor(rosenbrock, jnp.array([0.5, 0.5])).remainder_order(jnp.array([1.0, 0.5]))
    assert float(order) == pytest.approx(3, abs=0.1)


def test_example_7_and_remark_3_gradient_descent_and_newton():
    fn = lambda p: p[0] ** 2 / 2 + 500 * p[1] ** 2
    found = hesskit.gradient_descent_rate(fn, jnp.zeros(2))
    assert float(found.kappa) == pytest.approx(1000)
    assert 6800 < float(found.iterations) < 7000
    newton = hesskit.minimize(fn, jnp.ones(2), hesskit.newton(learning_rate=1.0))
    assert int(newton.num_steps) <= 10


def test_examples_9_and_10_rosenbrock():
    at = jnp.ones(2)
    found = hesskit.classify_critical_point(rosenbrock, at)
    np.testing.assert_allclose(found.eigenvalues, [0.3993608, 1001.60064], rtol=1e-7)
    assert found.kind == hesskit.CriticalKind.MINIMUM
    assert float(hesskit.condition_number(rosenbrock, at)) == pytest.approx(2508.0096, rel=1e-7)
    newton = hesskit.newton(learning_rate=1.0)
    for start, steps in (([-1.2, 1.0], 7), ([0.5, 0.5], 6)):
        result = hesskit.minimize(rosenbrock, jnp.array(start), newton, gtol=0.0, history=True)
        below = np.asarray(result.history.grad_norm) < 1e-10
        assert int(np.argmax(below)) == steps


def test_the_trap_an_indefinite_hessian_has_a_condition_number_too():
    at = jnp.array([0.5, 0.5])
    matrix = hesskit.hessian(rosenbrock, at)
    np.testing.assert_allclose(matrix, [[102, -200], [-200, 200]], atol=1e-11)
    found = hesskit.condition_number(matrix)
    np.testing.assert_allclose(
        hesskit.definiteness(matrix).eigenvalues, [-54.915, 356.915], atol=1e-3
    )
    assert float(found) == pytest.approx(6.499, abs=1e-3)
    assert found.definiteness == hesskit.DefiniteKind.INDEFINITE
    model = hesskit.taylor(rosenbrock, at)
    np.testing.assert_allclose(model.grad, [-51, 50])
    direction = -np.linalg.solve(matrix, model.grad)
    np.testing.assert_allclose(direction, [-0.0102, -0.2602], atol=1e-4)
    assert float(direction @ model.grad) == pytest.approx(-12.49, abs=5e-3)


def test_remark_4_newton_goes_to_saddles_and_a_trust_region_leaves_them():
    start = jnp.array([0.1, 0.9])
    to_saddle = hesskit.minimize(nine, start, hesskit.newton(learning_rate=1.0))
    np.testing.assert_allclose(to_saddle.params, [0, 1], atol=1e-9)
    assert to_saddle.status == hesskit.Status.SADDLE
    away = hesskit.minimize(nine, to_saddle.params)
    assert bool(away.success)
    kind = hesskit.classify_critical_point(nine, away.params).kind
    assert kind == hesskit.CriticalKind.MINIMUM


def test_remark_4_minima_are_rare_among_random_signs():
    """A critical point with independent signs is a minimum once in 2^n."""
    n, num = 4, 4000
    signs = jax.random.rademacher(jax.random.key(0), (num, n), "float64")
    count = jax.vmap(lambda s: hesskit.definiteness(jnp.diag(s)).code)(signs)
    share = np.mean(np.asarray(count) == hesskit.DefiniteKind.POSITIVE_DEFINITE)
    assert abs(share - 2.0**-n) < 4 * (2.0**-n / num) ** 0.5


def test_the_systems_list_gauss_newton_is_semidefinite_and_equals_fisher():
    """Gauss-Newton is never indefinite; Adam's diagonal is another one (compare_diagonals)."""
    x, y = jnp.array([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]]), jnp.array([1, 0, 1])
    loss = hesskit.composite(
        hesskit.losses.sigmoid_cross_entropy(), lambda w, x: jnp.sin(3 * x @ w)
    )
    w = jnp.array([0.4, 0.3])
    matrix = hesskit.gauss_newton_operator(loss, w, args=(x, y)).dense()
    fisher = hesskit.fisher_operator(loss, w, args=(x, y)).dense()
    np.testing.assert_allclose(matrix, fisher, rtol=1e-12)
    assert hesskit.definiteness(matrix).inertia[2] == 0
    assert hesskit.definiteness(loss, w, args=(x, y)).inertia[2] > 0


def test_the_systems_list_spectrum_in_practice():
    """A bulk at zero and a few outliers: the effective dimension counts the latter."""
    w = jnp.concatenate([jnp.full(97, 1e-6), jnp.array([3.0, 5.0, 9.0])])
    assert round(float(hesskit.effective_dimension(jnp.diag(w), damping=1e-2))) == 3
    top = hesskit.eigenpairs(jnp.diag(w), num=3)
    np.testing.assert_allclose(top.eigenvalues, [3, 5, 9], rtol=1e-10)


def test_convexity_and_its_constants():
    strongly = hesskit.convexity(lambda p: p[0] ** 2 + 4 * p[1] ** 2, jnp.zeros(2), num_points=5)
    assert strongly.kind == hesskit.ConvexityKind.STRONGLY_CONVEX_SO_FAR
    np.testing.assert_allclose([strongly.mu_at_most, strongly.smoothness_at_least], [2, 8])
    neither = hesskit.convexity(nine, jnp.zeros(2), num_points=5)
    assert neither.kind == hesskit.ConvexityKind.NEITHER


def test_simple_example_of_the_second_text():
    fn = lambda p: 3 * p[0] ** 2 + 2 * p[0] * p[1] + p[1] ** 2
    at = jnp.array([1.0, -2.0])
    np.testing.assert_allclose(hesskit.taylor(fn, at).grad, [6 - 4, 2 - 4], atol=1e-12)
    np.testing.assert_allclose(hesskit.hessian(fn, at), [[6, 2], [2, 2]])
    found = hesskit.condition_number(fn, at)
    assert float(found) == pytest.approx(5.828, abs=5e-4)
    np.testing.assert_allclose([found.smallest, found.largest], [1.1716, 6.8284], atol=5e-5)


def test_links_outward_a_surface_given_by_a_constraint():
    """A height is an implicit function of a place; a sphere of radius 2 curves by 1/2 anywhere."""
    sphere = lambda z, p: p @ p + z * z - 4
    height = lambda p: hesskit.least_squares(sphere, jnp.array(1.5), args=(p,)).params
    p = jnp.array([0.6, 0.8])
    z = np.sqrt(3)
    np.testing.assert_allclose(jax.grad(height)(p), -p / z, rtol=1e-10)
    expected = -(np.eye(2) / z + np.outer(p, p) / z**3)
    np.testing.assert_allclose(hesskit.hessian(height, p), expected, rtol=1e-9)
    np.testing.assert_allclose(hesskit.principal_curvatures(height, p).of_graph, -0.5, rtol=1e-9)


def test_links_outward_a_lyapunov_function_by_its_hessians():
    """A damped pendulum: hanging it is stable, for V has a minimum and its rate a maximum there."""

    def flow(x):
        return jnp.array([x[1], -jnp.sin(x[0]) - 0.5 * x[1]])

    def energy(x):  # with a small cross term, for without it the rate is only semidefinite
        return 1 - jnp.cos(x[0]) + x[1] ** 2 / 2 + 0.2 * jnp.sin(x[0]) * x[1]

    rate = lambda x: jax.grad(energy)(x) @ flow(x)
    hanging, upright = jnp.zeros(2), jnp.array([jnp.pi, 0.0])
    found = hesskit.definiteness(energy, hanging)
    assert found.kind == hesskit.DefiniteKind.POSITIVE_DEFINITE
    np.testing.assert_allclose(found.eigenvalues, [0.8, 1.2])
    np.testing.assert_allclose(hesskit.hessian(rate, hanging), [[-0.4, -0.1], [-0.1, -0.6]])
    assert hesskit.classify_critical_point(rate, hanging).kind == hesskit.CriticalKind.MAXIMUM
    assert hesskit.classify_critical_point(energy, upright).kind == hesskit.CriticalKind.SADDLE


@pytest.mark.parametrize(
    ("matrix", "ends", "kappa"),
    [
        (np.eye(2), (1, 1), 1),
        (np.diag([15.0, 1.0]), (1, 15), 15),
        ([[10.0, 6.0], [6.0, 8.0]], (2.917, 15.083), 5.170),
    ],
    ids=["identity", "anisotropic", "skewed"],
)
def test_gradient_descent_and_newton_on_three_quadratics(matrix, ends, kappa):
    matrix, start = jnp.asarray(matrix), jnp.array([80.0, 90.0])
    fn = lambda p: p @ matrix @ p / 2
    found = hesskit.condition_number(fn, start)
    np.testing.assert_allclose([found.smallest, found.largest], ends, atol=5e-4)
    assert float(found) == pytest.approx(kappa, abs=5e-4)
    descent = hesskit.minimize(fn, start, optax.sgd(0.1), max_steps=30, gtol=0.0)
    by_hand = np.linalg.matrix_power(np.eye(2) - 0.1 * np.asarray(matrix), 30) @ np.asarray(start)
    np.testing.assert_allclose(descent.params, by_hand, rtol=1e-9)
    newton = hesskit.minimize(fn, start, hesskit.newton(learning_rate=1.0), history="params")
    np.testing.assert_allclose(newton.history.params[1], 0, atol=1e-12)
