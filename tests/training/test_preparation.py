"""What is known of the data before images are scored."""

from types import SimpleNamespace

import pytest
from tiny import lesion_data, small

from anomalib_medclip.errors import NotReadyError
from anomalib_medclip.models.mvfa import MVFA
from anomalib_medclip.training.datamodule_view import DatamoduleView


@pytest.fixture(scope="module")
def model():
    return small(MVFA)


@pytest.mark.parametrize("support", [None, []])
def test_images_to_certify_with_are_of_validation_where_there_is_no_support(
    support, model, lesions
):
    data = lesion_data(lesions)
    data.setup()
    given = SimpleNamespace(support_data=support, val_data=data.val_data)
    model.preparation.keep_probes(DatamoduleView(given))
    assert model.exporter.probes.shape == (8, 3, 40, 48)


@pytest.mark.parametrize("said", [None, ""])
def test_data_without_words_are_asked_for_them(said, model):
    given = DatamoduleView(SimpleNamespace(object_name=said, object_names=[said]))
    assert given.identity is None
    assert given.object_names == set()
    with pytest.raises(NotReadyError, match=r"pass --model\.object_name"):
        model.preparation.meet(given, None)
