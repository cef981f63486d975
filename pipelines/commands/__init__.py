"""Groups of the `rgsud` command, one file each; `cli.py` has the pipeline's own."""
