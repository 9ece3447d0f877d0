"""Pages for people: HTML that escapes by default and SVG plots, loaded from nowhere, in one style."""
