"""Composition root: the HTTP faces of Fanxing, one router per audience, wired to the domain packages."""
