"""Open a reconstructed file in the real ROOT and compare every value, and read it as the experiment's macros do.

ROOT comes from its wheel on the package index, in an environment of its own: it is no dependency of the project.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

from cygnoreco import Recipe, reconstruct
from simulation.detector import Detector
from simulation.plan import demo_plan
from simulation.run import pedestal_run, write_run

CHECK = r"""
import sys
import numpy as np
import ROOT

path, expected = sys.argv[1], np.load(sys.argv[2])
file = ROOT.TFile.Open(path)
assert not file.IsZombie()
tree = file.Get("Events")
counters = {"sc_": "nSc", "redpix_": "nRedpix"}
frame = ROOT.RDataFrame(tree)
names = [str(name) for name in frame.GetColumnNames()]
columns = frame.AsNumpy(names)
compared = 0
for name in expected.files:
    got = columns[name]
    if name.startswith(tuple(counters)):
        got = np.concatenate([np.asarray(each) for each in got]) if len(got) else np.empty(0)
    assert np.array_equal(np.asarray(got, expected[name].dtype), expected[name], equal_nan=True), name
    compared += len(expected[name])
assert set(names) == set(expected.files), set(names) ^ set(expected.files)

# As a macro does: typed addresses, checked by ROOT; anything but kMatch (0) leaves a macro without data.
ROOT.gInterpreter.Declare('''
double integral_by_macro(TTree* tree) {
  UInt_t nSc = 0, nRedpix = 0;
  Int_t run = 0, event = 0;
  static Float_t sc_integral[100000], redpix_iz[30000000];
  static Int_t redpix_ix[30000000];
  int bad = 0;
  bad += tree->SetBranchAddress("run", &run) != 0;
  bad += tree->SetBranchAddress("event", &event) != 0;
  bad += tree->SetBranchAddress("nSc", &nSc) != 0;
  bad += tree->SetBranchAddress("nRedpix", &nRedpix) != 0;
  bad += tree->SetBranchAddress("sc_integral", sc_integral) != 0;
  bad += tree->SetBranchAddress("redpix_ix", redpix_ix) != 0;
  bad += tree->SetBranchAddress("redpix_iz", redpix_iz) != 0;
  if (bad) return -1e30;
  double sum = 0;
  for (Long64_t i = 0; i < tree->GetEntries(); ++i) {
    tree->GetEntry(i);
    for (UInt_t k = 0; k < nSc; ++k) sum += sc_integral[k];
  }
  return sum;
}''')
by_macro = ROOT.integral_by_macro(tree)
assert np.isclose(by_macro, expected["sc_integral"].sum(dtype=float), rtol=1e-12), by_macro
assert file.Get("Reco_params").GetEntries() == 1
assert '"key"' in str(file.Get("provenance").GetString())
drawn = tree.Draw("sc_integral/sc_nhits:sc_length", "sc_size>0", "goff")
assert drawn == (expected["sc_size"] > 0).sum()
print(f"ROOT {ROOT.gROOT.GetVersion()}: {tree.GetEntries()} events, {len(names)} branches, {compared} values equal")
"""

with tempfile.TemporaryDirectory() as folder:
    home = Path(folder)
    detector = Detector(height=512, width=512)
    pedestal_run(home / "run00010.mid.gz", run=10, frames=20, detector=detector)
    write_run(home / "run00011.mid.gz", run=11, events=demo_plan(6, detector=detector), detector=detector)
    recipe = Recipe.load("lime").override(["accept.ymin=none", "accept.ymax=none", "accept.xmax=none"])
    result = reconstruct(
        home / "run00011.mid.gz", pedestal=home / "run00010.mid.gz", recipe=recipe, out=home, response="none"
    )
    tables = (result.tables.events, result.tables.clusters, result.tables.redpix)
    arrays = {name: table[name] for table in tables for name in table.dtype.names or ()}
    np.savez(home / "expected.npz", **arrays)
    environment = Path(os.environ.get("CYGNORECO_ROOT_VENV", home / "root"))
    python = str(environment / "bin" / "python")
    if not Path(python).exists():
        venv.create(environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--pre", "ROOT", "numpy"], check=True)
    (home / "check.py").write_text(CHECK)
    command = [python, str(home / "check.py"), str(result.path), str(home / "expected.npz")]
    sys.exit(subprocess.run(command, check=False).returncode)
