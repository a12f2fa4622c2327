rule demo:
    output:
        image="resources/demo/scene.img",
        header="resources/demo/scene.hdr",
        ground_truth="resources/demo/ground_truth.tif",
    log:
        "logs/demo.log",
    benchmark:
        "benchmarks/demo.tsv"
    conda:
        "../envs/special.yaml"
    params:
        folder=subpath(output.image, parent=True),
        code=digest_of("demo"),
    shell:
        "python -m special_steps.demo --out {params.folder} --seed 0 &> {log}"


rule ingest:
    input:
        cube=lambda w: data_files(SCENES[w.scene]["cube"]["path"]),
        headers=lambda w: headers(data_files(SCENES[w.scene]["cube"]["path"])),
    output:
        directory("results/{scene}/cube.zarr"),
    log:
        "logs/{scene}/ingest.log",
    benchmark:
        "benchmarks/{scene}/ingest.tsv"
    conda:
        "../envs/special.yaml"
    params:
        paths=lambda w, input: flags({"cube": list(map(str, input.cube))}),
        settings=lambda w: flags(cube_settings(w.scene)),
        code=digest_of("ingest"),
    shell:
        "python -m special_steps.ingest {params.paths} --out {output}"
        " {params.settings} &> {log}"
