"""Search: study, budget, leases, supervision, tracking, report, export, command line. Knows optuna and mlflow."""
