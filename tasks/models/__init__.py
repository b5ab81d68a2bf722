"""Finding, checking and loading of models: diffusion checkpoints, flow estimators, metric networks."""
