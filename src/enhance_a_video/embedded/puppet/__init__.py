"""The puppet world: captioned clips of a puppet and of moving shapes, drawn by us, with the truth about every frame."""
