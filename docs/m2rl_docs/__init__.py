"""What builds and checks the documentation: pages that are made from the code, and the snippets of all pages."""
