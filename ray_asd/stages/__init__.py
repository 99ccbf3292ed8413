"""Floor 2: the stages of the build, and the only place that imports Ray.

Each module holds one stage: its key (what its digest is made of) and its work. torch and Ray are imported by the
work, not by the module, so that a stage whose marker stands answers at once.
"""
