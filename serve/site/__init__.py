"""A page that needs no server but one of files: model, gallery and pictures in one folder."""
