"""The entrance of MkDocs, which puts this file's folder on the path while it reads it; see :mod:`m2rl_docs.pages`."""

from m2rl_docs.pages import on_config, on_files, on_page_markdown, on_post_build

__all__ = ["on_config", "on_files", "on_page_markdown", "on_post_build"]
