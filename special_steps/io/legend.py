"""What GIS programs read of a class map's legend: GDAL's raster attribute table, and QGIS's style."""

from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from special_steps.core.palette import rgb_of

MISSING = "no data"
# https://gdal.org/api/gdalrasterband_cpp.html: GDALRATFieldType and GDALRATFieldUsage of the columns
COLUMNS = [
    ("Value", 0, 5),
    ("Class", 2, 2),
    ("Red", 0, 6),
    ("Green", 0, 7),
    ("Blue", 0, 8),
    ("Alpha", 0, 9),
]


NOTHING = (
    "{2839923C-8B7D-419E-B84B-CA2FE9B80EC7}"  # QGIS's word for an empty field in a list of choices
)


def attribute_table(class_names: Sequence[str], colours: Sequence[str]) -> str:
    """GDAL's side file of a class map (`.aux.xml`): names, palette and table of the classes and of no data, which is 0.

    GeoTIFF has no place for names and tables, and its palette has 256 entries in any case. GDAL takes all three from
    here before it looks into the file, and so does QGIS for its legend.

    Args:
        class_names: the K classes.
        colours: their colours, #rrggbb.
    """
    rows = [(0, MISSING, 0, 0, 0, 0)] + [
        (i, name, *rgb_of(colour), 255)
        for i, (name, colour) in enumerate(zip(class_names, colours, strict=True), 1)
    ]
    names = "".join(f"<Category>{escape(n)}</Category>" for n in (MISSING, *class_names))
    entries = "".join(
        f'<Entry c1="{red}" c2="{green}" c3="{blue}" c4="{alpha}"/>'
        for _, _, red, green, blue, alpha in rows
    )
    fields = "".join(
        f'<FieldDefn index="{i}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for i, (name, kind, usage) in enumerate(COLUMNS)
    )
    table = "".join(
        f'<Row index="{i}">{"".join(f"<F>{escape(str(v))}</F>" for v in row)}</Row>'
        for i, row in enumerate(rows)
    )
    return (
        '<PAMDataset><PAMRasterBand band="1"><ColorInterp>Palette</ColorInterp>'
        f"<CategoryNames>{names}</CategoryNames><ColorTable>{entries}</ColorTable>"
        f'<GDALRasterAttributeTable tableType="thematic">{fields}{table}</GDALRasterAttributeTable>'
        "</PAMRasterBand></PAMDataset>\n"
    )


def raster_style(class_names: Sequence[str], colours: Sequence[str]) -> str:
    """QGIS's style of a class map (`.qml`), which it takes by itself: exactly the classes, and no data.

    Without it and the side file of `attribute_table`, QGIS lists the 256 colours of the GeoTIFF's own palette.
    """
    entries = '<paletteEntry value="0" color="#ffffff" alpha="0" label="no data"/>' + "".join(
        f'<paletteEntry value="{i}" color="{colour}" alpha="255" label={quoteattr(name)}/>'
        for i, (name, colour) in enumerate(zip(class_names, colours, strict=True), 1)
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22" styleCategories="Symbology"><pipe>'
        '<rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">'
        f"<colorPalette>{entries}</colorPalette></rasterrenderer></pipe></qgis>\n"
    )


def polygon_style(class_names: Sequence[str], colours: Sequence[str]) -> str:
    """QGIS's style of polygons (`.qml`) by their field `class`: the colours of the class map."""
    categories = "".join(
        f'<category value={quoteattr(name)} label={quoteattr(name)} symbol="{i}" render="true"/>'
        for i, name in enumerate(class_names)
    )
    symbols = "".join(
        f'<symbol type="fill" name="{i}" alpha="1"><layer class="SimpleFill" enabled="1" pass="0">'
        f'<prop k="color" v="{",".join(map(str, rgb_of(colour)))},255"/>'
        '<prop k="style" v="solid"/><prop k="outline_style" v="no"/></layer></symbol>'
        for i, colour in enumerate(colours)
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22" styleCategories="Symbology">'
        '<renderer-v2 type="categorizedSymbol" attr="class" symbollevels="0">'
        f"<categories>{categories}</categories><symbols>{symbols}</symbols></renderer-v2></qgis>\n"
    )


def choice_form(column: str, words: Sequence[str]) -> str:
    """QGIS's form of points (`.qml`): words to choose from, or none, in place of a line to type into.

    QGIS takes it by itself where it has the points' name and lies beside them.

    Args:
        column: that people fill.
        words: what they may fill in.
    """
    choices = "".join(
        f'<Option type="Map"><Option type="QString" name={quoteattr(name)} value={quoteattr(value)}/></Option>'
        for name, value in [("", NOTHING), *zip(words, words, strict=True)]
    )
    return (
        "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
        '<qgis version="3.22" styleCategories="Forms|Fields"><fieldConfiguration>'
        f'<field name={quoteattr(column)}><editWidget type="ValueMap"><config><Option type="Map">'
        f'<Option type="List" name="map">{choices}</Option>'
        "</Option></config></editWidget></field></fieldConfiguration></qgis>\n"
    )
