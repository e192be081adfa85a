"""Files for servers that other projects make. It starts none and talks to none."""
