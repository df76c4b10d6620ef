"""The paper's stacking and scaling rules as searchable spaces, and what a design costs."""
