"""The GS1 Digital Link resolver: links that brands give to what a GS1 key names, and which of them a request wants."""
