"""Process churn as a build makes it: shells that start programs."""

from . import PuppetWork


class Churn(PuppetWork):
    name = kind = "churn"
    what = "shells started, each of which runs a program"
    unit = "1/s"
    counted = "processes"
    first = 4


LOAD = Churn()
