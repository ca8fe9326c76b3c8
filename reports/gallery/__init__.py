"""The figures of the README, made by ``python -m reports.gallery RUN...`` from the run files of ``nox -s report``."""
