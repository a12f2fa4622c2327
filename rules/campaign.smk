rule together:
    input:
        cubes=[f"results/{scene}/cube.zarr" for scene in members(settings)],
        pseudo=lambda w: [scene["pseudo"] for scene in stacked_scenes(w.run)],
    output:
        features=directory("results/together/{run}/features-hsi.zarr"),
        pseudo=directory("results/together/{run}/pseudo.zarr"),
    log:
        "logs/together/{run}/together.log",
    benchmark:
        "benchmarks/together/{run}/together.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {
                "scenes": stacked_scenes(w.run),
                "percentiles": settings["features"]["stretch"],
            }
        ),
        code=digest_of("together"),
    shell:
        "python -m special_steps.together --features {output.features}"
        " --pseudo {output.pseudo} {params.settings} &> {log}"


rule apply:
    input:
        cube="results/{scene}/cube.zarr",
        features=lambda w: applied_from(w.scene, w.run, w.applied)["features"],
        source=lambda w: applied_from(w.scene, w.run, w.applied)["source"],
        cotrain=lambda w: applied_from(w.scene, w.run, w.applied)["cotrain"] or [],
        networks=lambda w: applied_from(w.scene, w.run, w.applied)["networks"],
        given=lambda w: given_labels(w.scene),
    output:
        prediction=directory("results/{scene}/{run}/{applied}.zarr"),
        told="results/{scene}/{run}/{applied}.json",
    log:
        "logs/{scene}/{run}/{applied}.log",
    benchmark:
        "benchmarks/{scene}/{run}/{applied}.tsv"
    conda:
        "../envs/special.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        settings=lambda w: flags(
            applied_from(w.scene, w.run, w.applied)
            | values_of(w.scene, learned(w.scene, w.run))
            | {
                "classifier": RUNS[w.run]["classifier"],
                "tile": tile_of(w.run),
                "given": next(iter(given_labels(w.scene)), None),
            }
        ),
        code=digest_of("apply"),
    shell:
        "python -m special_steps.apply --cube {input.cube} --out {output.prediction}"
        " --told {output.told} {params.settings} &> {log}"


rule mosaic:
    input:
        lambda w: mosaic_maps(w.scene, w.run),
    output:
        "results/mosaic/{scene}/{run}.vrt",
    log:
        "logs/{scene}/{run}/mosaic.log",
    benchmark:
        "benchmarks/{scene}/{run}/mosaic.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {
                "scenes": campaigns()[w.scene, w.run],
                "maps": mosaic_maps(w.scene, w.run),
                "colours": SCENES[campaigns()[w.scene, w.run][0]]["colours"],
            }
        ),
        code=digest_of("mosaic"),
    shell:
        "python -m special_steps.mosaic --out {output} {params.settings} &> {log}"
