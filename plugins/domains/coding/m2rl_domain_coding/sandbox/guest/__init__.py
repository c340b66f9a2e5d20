"""What runs inside a sandbox: in a bare interpreter, so with the standard library and relative imports only."""
