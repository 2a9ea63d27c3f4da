"""Search: study, budget, leases, supervision, tracking, report, export and the command line. Knows optuna and mlflow."""
