"""The pipelines on a Kubeflow server: sign in, upload, submit, schedule, watch."""
