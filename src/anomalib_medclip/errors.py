"""Typed errors: each message says what came, what was wanted, and what to do."""


class MedclipError(Exception):
    """Base of every error raised on purpose by this package."""


class DataRootError(MedclipError, FileNotFoundError):
    """A data folder, table or list file does not exist or is not laid out as expected."""


class EmptySplitError(MedclipError, ValueError):
    """A split that is needed holds no image of a class that is needed."""


class SupportError(MedclipError, ValueError):
    """The support images asked for cannot be drawn: K too large, unknown name, shared patient."""


class MissingMaskError(MedclipError, FileNotFoundError):
    """An abnormal image of a set with masks has no mask; it is never read as healthy."""


class MaskError(MedclipError, ValueError):
    """A mask is of another size than its image, or says the contrary of its label."""


class ImageReadError(MedclipError, OSError):
    """A file of data is missing, may not be read, is none, is too large, or cannot be decoded."""


class NoPictureError(ImageReadError):
    """A sound DICOM file that holds no picture, such as a report; beside a series it is left out.

    Attributes:
        reason: What it is, as the rest of a sentence that begins with the file.
        remedy: What to do.
    """

    remedy = "take it out of the data"

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path} {reason}; {self.remedy}")
        self.reason = reason


class IntensityError(MedclipError, ValueError):
    """An image of more than 8 bits came without an intensity policy, or leaves its range."""


class DataChangedError(MedclipError, RuntimeError):
    """Files or labels are no longer what they were when the work began."""


class VolumeError(MedclipError, ValueError):
    """A volume is not what it says: its size, its geometry, or which files belong to it."""


class DamagedFileError(MedclipError, ValueError):
    """A JSON file that this package wrote, or a user, is no JSON, or holds NaN."""


class ResultsError(MedclipError, FileExistsError):
    """Results lie where others are to be written."""


class OutputError(MedclipError, OSError):
    """Results cannot be written: their folder is not ours to write to, or its disk is full."""


class WeightsError(MedclipError, RuntimeError):
    """CLIP or adapter weights cannot be found, downloaded or fitted to the model."""


class BackboneMismatchError(MedclipError, RuntimeError):
    """A checkpoint was trained on another backbone than the one it is loaded into."""


class CheckpointError(MedclipError, RuntimeError):
    """A checkpoint is not one of this method, or was made with other options."""


class TrustError(CheckpointError):
    """A file would run code when it is opened, and nobody said that it is trusted."""


class ParityError(MedclipError, RuntimeError):
    """An exported model does not give the answers of the trained one."""


class RuntimeMissingError(MedclipError, ImportError):
    """A runtime for exported models is not installed, or a library is damaged."""


class ProcessDiedError(MedclipError, RuntimeError):
    """Processes that were to run cells of a comparison ended by themselves."""


class NotReadyError(MedclipError, RuntimeError):
    """The model is asked for scores before prompts or memory bank exist."""


class UnfinishedError(CheckpointError, NotReadyError):
    """A model is asked for scores, or to be exported, whose training has not ended.

    Attributes:
        reason: Why that gives none, and what helps, for messages.
    """

    reason = (
        "is of a training that was not finished, so that its threshold or its memory is not that "
        "of its weights; go on with 'anomalib train --ckpt_path', take the checkpoint of the end, "
        "or give it to 'anomalib test' with its data, which finishes it for the test"
    )


class PluginError(MedclipError, ImportError):
    """A method of another package cannot be imported, or shares its name with one of a third."""


class UnknownNameError(MedclipError, ValueError):
    """A name or number to look up is not among those there are."""


class NonFiniteError(MedclipError, ValueError):
    """A loss, weight, score or figure is NaN or infinite: what comes of it would be no result.

    Attributes:
        remedy: What helps where a model made it, for messages.
    """

    remedy = "train with a lower learning rate, or compute in fp32 if it was in half precision"


class MetricError(MedclipError, ValueError):
    """Scores, labels or groups that no metric can take, such as NaN, or too few for an interval."""


class ConfigError(MedclipError, ValueError):
    """A config names what there is not, or gives a value that cannot be."""
