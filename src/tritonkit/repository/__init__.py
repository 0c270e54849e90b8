"""The model repository: config.pbtxt and the files around it, read and written."""
