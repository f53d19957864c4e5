"""A look at the data of a config before anything of the model is built."""

from .clean import drop_findings
from .report import MapFacts, SplitReport, raise_findings
from .scan import scan_data

__all__ = ['MapFacts', 'SplitReport', 'drop_findings', 'raise_findings', 'scan_data']
