"""The errors a user can do something about; the command line prints them without a traceback."""


class RgsudError(Exception):
    """Base of all user-facing errors: the message names the value, the expectation and the fix."""


class ConfigError(RgsudError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(RgsudError):
    """An image, a folder or a paired set cannot be used."""


class BundleError(RgsudError):
    """A bundle, checkpoint or model file is missing, incomplete or altered."""


class TrainingError(RgsudError):
    """Training cannot go on (repeated non-finite steps, a reward that is constant or NaN)."""


class RegistryError(RgsudError):
    """The model registry cannot be reached, lacks what was asked for, or changed meanwhile."""


class ComparisonError(RgsudError):
    """Runs cannot be compared, or one cannot be told from what was given."""


class NodeError(RgsudError):
    """This machine, or a service it needs, cannot do the work; another one may."""


class Preempted(RgsudError):
    """SIGTERM arrived and the state was saved; the same command resumes. Exit code 143."""
