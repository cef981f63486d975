"""The derainer as a web service: images in, images out, and the Open Inference Protocol v2 that KServe speaks.

`server.py` runs it, `app.py` has the addresses, `engine.py` the one thread that derains, `protocol.py` and
`pictures.py` the two forms in which images come and go, `manifest.py` the InferenceService of a registered version.
"""
