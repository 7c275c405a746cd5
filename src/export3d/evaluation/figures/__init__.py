"""Pictures of results: sheets, plots, Markdown tables."""
