"""The web page of `enhance-a-video ui`: a front desk like cli/, which makes clips with the same engine.

form.py     the settings of a clip: read from the page, from a clip, from a link; and presets
jobs.py     the queue, kept in a file
gallery.py  the clips that were made, a folder each
maker.py    the one thread that makes them, one after the other, and can be stopped
uploads.py  a clip that was dropped on the page, checked
player.py   the video player with a wipe line, and results in words
page.py     the page itself (Gradio), and how it is served
"""
