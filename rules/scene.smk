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


rule unpack:
    input:
        lambda w: data_files(SCENES[w.scene]["cube"]["path"]),
    output:
        temp(directory("results/{scene}/product")),
    log:
        "logs/{scene}/unpack.log",
    benchmark:
        "benchmarks/{scene}/unpack.tsv"
    conda:
        "../envs/special.yaml"
    params:
        code=digest_of("unpack"),
    shell:
        "python -m special_steps.unpack --archive {input} --out {output} &> {log}"


rule ingest:
    input:
        cube=lambda w: scene_files(w.scene),
        masks=lambda w: mask_files(w.scene),
    output:
        directory("results/{scene}/cube.zarr"),
    log:
        "logs/{scene}/ingest.log",
    benchmark:
        "benchmarks/{scene}/ingest.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {"cube": cube_paths(w.scene)} | arguments.cube_settings(settings, w.scene)
        ),
        code=digest_of("ingest"),
    shell:
        "python -m special_steps.ingest --out {output} {params.settings} &> {log}"
