"""Images crafted elsewhere, shipped as one file."""
