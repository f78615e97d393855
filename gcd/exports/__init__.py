"""Things to take home: a trained row as files that others serve without this repository.

`writing` fills the folder, all of it or nothing. `base` says what others load below the adapter,
`facts` collects what the records say of the row, `card` and `serving` write it down as the folder's
README.md. `converter` fetches and runs llama.cpp's own converters, `convert_merged` is one of them.
"""
