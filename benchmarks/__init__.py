import os

# The threads of OpenBLAS, which serves `jnp.linalg.eigh` on a CPU, wait for one another by
# spinning: on a busy machine an eigen-decomposition at n = 300 took 1.3 s instead of 5 ms.
# Read when the library is loaded, so set before jax or scipy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
