"""Names of data, which are folders in results."""

from anomalib.data import AnomalibDataModule

from anomalib_medclip.option_checks import checked_name


class NamedDataModule(AnomalibDataModule):
    """A data module whose results stay in their folder, whatever it is called.

    Attributes:
        data_name: Name in results.
    """

    data_name: str = ""

    @property
    def name(self) -> str:  # type: ignore[override] # Lightning says None, anomalib wants this
        """Name of the data in results, by default that of the class.

        Raises:
            ConfigError: It, or the category, whose folder lies within, would lead elsewhere.
        """
        if self.category:
            checked_name("category", self.category)
        return checked_name("name", self.data_name or type(self).__name__)

    @property
    def where(self) -> str:
        """What error messages call these data."""
        return " ".join(part for part in (self.name, self.category) if part)
