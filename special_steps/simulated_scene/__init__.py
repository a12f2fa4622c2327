"""A simulated airborne scene: a small landscape, the spectra of its materials, and the sensor that looks at it.

Every pixel is a mixture of reflectance spectra of the `earthlib` library (MIT licence): soils, asphalt, tiles and dry
plants were measured in field and laboratory, green canopies come from its PROSAIL set; water is a bio-optical model.
The landscape is drawn on a grid four times finer than the pixels, lit by a sun from its height field, and averaged
down.
"""
