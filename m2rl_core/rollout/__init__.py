"""From prompts to verified samples: quotas of the domains, episodes, verifiers."""
