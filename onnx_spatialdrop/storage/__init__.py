"""Model files as bytes: checked before anything runs, replaced whole, weights left where they are."""
