"""The scripts here are run by test_usecases.py; pytest need not import them for doctests."""

collect_ignore_glob = ["train_*.py", "fit_*.py", "laplace_*.py", "learn_*.py", "pinn.py"]
