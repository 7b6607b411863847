"""iDBSCAN: density clustering in three passes, from dense and long to sparse and small."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cygnoreco.cluster.lattice import Clustering, check_points
from cygnoreco.kernels.lattice import ball_sums, connect, half_widths, row_starts
from cygnoreco.stage import stage
