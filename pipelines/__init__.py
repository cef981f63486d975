"""The DAG, where it runs, and the `rgsud` command."""
