"""Published predictions into the form of data/external_predictions: the CheXNet reproduction of docs/external-predictions.md.

Reads   preds_labels.csv.gz: pretrained/preds.csv of jrzech/reproduce-chexnet (Image Index, prob_<finding>), with Finding Labels
        and Patient ID joined from NIH's Data_Entry_2017_v2020.csv by Image Index
Run     python docs/chexnet_predictions.py preds_labels.csv.gz data/external_predictions/chexnet-bce-0.csv.gz
"""

import sys

import pandas


def convert(published: str, out: str) -> None:
    """Rename the columns, and make a column of 1 and 0 of each word of Finding Labels, No Finding among them."""
    table = pandas.read_csv(published, dtype=str)
    probabilities = table.filter(regex="^prob_").rename(columns=lambda name: name.replace("prob_", "prob:"))
    truth = table["Finding Labels"].str.get_dummies("|").add_prefix("true:")
    images = pandas.DataFrame({"id": table["Image Index"].str.removesuffix(".png"), "patient": table["Patient ID"]})
    pandas.concat([images, probabilities, truth], axis=1).to_csv(out, index=False)


if __name__ == "__main__":
    convert(*sys.argv[1:])
