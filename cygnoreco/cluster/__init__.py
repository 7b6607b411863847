"""From points to clusters: DBSCAN on the lattice, iDBSCAN, directional clustering."""
