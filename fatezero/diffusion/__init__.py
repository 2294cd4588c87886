"""A diffusers checkpoint as verbs, DDIM both ways, and inversion."""
