"""Words to text features: states, templates, defect vocabularies, ensembles, cached features."""
