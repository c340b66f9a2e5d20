"""What runs inside a sandbox: a bare interpreter without site-packages, so the standard library and relative imports."""
