"""Storage: the Zarr workspace, digests, completion records, video files and tables."""
