"""Folders and `s3://` addresses: what lies there, verified transfers, and workdirs that live in S3."""
