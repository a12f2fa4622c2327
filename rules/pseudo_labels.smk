rule rgb:
    input:
        "results/{scene}/cube.zarr",
    output:
        directory("results/{scene}/rgb.zarr"),
    log:
        "logs/{scene}/rgb.log",
    benchmark:
        "benchmarks/{scene}/rgb.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=flags(
            {
                "wavelengths": settings["rgb"]["wavelengths"],
                "percentiles": settings["rgb"]["stretch"],
            }
        ),
        code=digest_of("rgb"),
    shell:
        "python -m special_steps.rgb --cube {input} --out {output} {params.settings} &> {log}"


rule text:
    input:
        model=lambda w: model_files(w.clip),
    output:
        "results/{scene}/clip/{clip}/text.npz",
    log:
        "logs/{scene}/clip/{clip}/text.log",
    benchmark:
        "benchmarks/{scene}/clip/{clip}/text.tsv"
    conda:
        "../envs/special.yaml"
    params:
        model=lambda w: flags(model_settings(w.clip)),
        settings=lambda w: flags(
            {
                "classes": SCENES[w.scene]["classes"],
                "templates": CLIPS[w.clip]["templates"],
            }
        ),
        weights=lambda w: bundled_weights(w.clip),
        code=digest_of("text"),
    shell:
        "python -m special_steps.text --out {output} {params.model}"
        " {params.settings} &> {log}"


rule clip_scale:
    input:
        rgb="results/{scene}/rgb.zarr",
        text="results/{scene}/clip/{clip}/text.npz",
        model=lambda w: model_files(w.clip),
    output:
        directory("results/{scene}/clip/{clip}/scale-{scale}.zarr"),
    log:
        "logs/{scene}/clip/{clip}/scale-{scale}.log",
    benchmark:
        "benchmarks/{scene}/clip/{clip}/scale-{scale}.tsv"
    conda:
        "../envs/special.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        settings=lambda w: flags(dense_settings(w.clip)),
        weights=lambda w: bundled_weights(w.clip),
        code=digest_of("clip_scale"),
    shell:
        "python -m special_steps.clip_scale --rgb {input.rgb} --text {input.text}"
        " --scale {wildcards.scale} --out {output} {params.settings} &> {log}"


rule evidence:
    input:
        cube="results/{scene}/cube.zarr",
        spectra=lambda w: list(own_spectra(w.scene).values()),
    output:
        evidence=directory("results/{scene}/evidence.zarr"),
        found="results/{scene}/evidence.json",
        table="results/{scene}/evidence.csv",
    log:
        "logs/{scene}/evidence.log",
    benchmark:
        "benchmarks/{scene}/evidence.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {k: SCENES[w.scene][k] for k in ("classes", "materials", "units")}
            | {"spectra": own_spectra(w.scene)}
        ),
        weights=bundled_model(),  # words that the table does not have are read by it
        code=digest_of("evidence"),
    shell:
        "python -m special_steps.evidence --cube {input.cube} --out {output.evidence}"
        " --found {output.found} --table {output.table} {params.settings} &> {log}"


rule fuse:
    input:
        maps=lambda w: scale_maps(w.scene, w.run),
        sidecars=lambda w: label_sidecars(w.scene, w.run),
        evidence=lambda w: evidence_files(w.scene, w.run),
        features=lambda w: clip_checked(w.scene, w.run),
        rgb="results/{scene}/rgb.zarr",
    output:
        pseudo=directory("results/{scene}/{run}/pseudo.zarr"),
        witnesses="results/{scene}/{run}/witnesses.json",
    log:
        "logs/{scene}/{run}/fuse.log",
    benchmark:
        "benchmarks/{scene}/{run}/fuse.tsv"
    conda:
        "../envs/special.yaml"
    params:
        maps=lambda w, input: flags(
            {key: list(map(str, input.get(key, []))) for key in ("maps", "evidence")}
            | {"features": next(iter(input.get("features", [])), None)}
        ),
        settings=lambda w: flags(
            {"class_names": class_names(w.scene), "align": aligned(w.run)}
        ),
        code=digest_of("fuse"),
    shell:
        "python -m special_steps.fuse {params.maps} --rgb {input.rgb} --out {output.pseudo}"
        " --witnesses {output.witnesses} {params.settings} &> {log}"
