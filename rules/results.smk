rule evaluate:
    input:
        prediction="results/{scene}/{run}/{stage}.zarr",
        truth=lambda w: with_sidecars(
            data_files(SCENES[w.scene]["ground_truth"]["path"])
        ),
    output:
        metrics="results/{scene}/{run}/{stage}.metrics.json",
        scores="results/{scene}/{run}/{stage}.classes.csv",
        confusion="results/{scene}/{run}/{stage}.confusion.csv",
    log:
        "logs/{scene}/{run}/{stage}.evaluate.log",
    benchmark:
        "benchmarks/{scene}/{run}/{stage}.evaluate.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {
                "map_id": map_id(w.scene, w.run, w.stage),
                "ground_truth": data_files(SCENES[w.scene]["ground_truth"]["path"]),
            }
            | truth_settings(w.scene)
        ),
        code=digest_of("evaluate"),
    shell:
        "python -m special_steps.evaluate --prediction {input.prediction}"
        " --metrics {output.metrics} --class_scores {output.scores}"
        " --confusion_matrix {output.confusion} {params.settings} &> {log}"


rule export:
    input:
        prediction=lambda w: f"results/{w.scene}/{w.run}/{exported(w.run)[w.folder]}.zarr",
        rgb="results/{scene}/rgb.zarr",
    output:
        classes="results/{scene}/{run}/{folder}map.tif",
        confidence="results/{scene}/{run}/{folder}confidence.tif",
        picture=report(
            "results/{scene}/{run}/{folder}map.png",
            caption="../workflow/report/map.rst",
            category="Maps",
            subcategory="{scene}",
            labels=lambda w: {"run": w.run, "map": exported(w.run)[w.folder]},
        ),
    log:
        "logs/{scene}/{run}/{folder}export.log",
    benchmark:
        "benchmarks/{scene}/{run}/{folder}export.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=flags(settings["export"]),
        code=digest_of("export"),
    shell:
        "python -m special_steps.export --prediction {input.prediction} --rgb {input.rgb}"
        " --class_map {output.classes} --confidence_map {output.confidence}"
        " --picture {output.picture} {params.settings} &> {log}"


rule curves:
    input:
        lambda w: [
            f"results/{w.scene}/{w.run}/seed-{w.seed}/{training}.csv"
            for training in TRAININGS[RUNS[w.run]["method"]]
        ],
    output:
        report(
            "results/{scene}/{run}/seed-{seed}/epochs.png",
            caption="../workflow/report/epochs.rst",
            category="Training",
            subcategory="{scene}",
            labels={"run": "{run}", "seed": "{seed}"},
        ),
    log:
        "logs/{scene}/{run}/seed-{seed}/curves.log",
    benchmark:
        "benchmarks/{scene}/{run}/seed-{seed}/curves.tsv"
    conda:
        "../envs/special.yaml"
    params:
        tables=lambda w, input: flags({"tables": list(map(str, input))}),
        code=digest_of("curves"),
    shell:
        "python -m special_steps.curves {params.tables} --picture {output} &> {log}"


rule signatures:
    input:
        table="results/{scene}/evidence.csv",
        found="results/{scene}/evidence.json",
    output:
        report(
            "results/{scene}/evidence.png",
            caption="../workflow/report/evidence.rst",
            category="Spectral evidence",
            labels={"scene": "{scene}"},
        ),
    log:
        "logs/{scene}/signatures.log",
    benchmark:
        "benchmarks/{scene}/signatures.tsv"
    conda:
        "../envs/special.yaml"
    params:
        code=digest_of("signatures"),
    shell:
        "python -m special_steps.signatures --table {input.table} --found {input.found}"
        " --picture {output} &> {log}"


rule summary:
    input:
        scenes=[f"results/{scene}/cube.zarr" for scene in SCENES],
        metrics=all_metrics(),
        witnesses=[path for _, _, path in witnesses()],
        diagnoses=[f"results/{s}/{r}/cotrain.json" for s, r in diagnosed()],
    output:
        csv="results/summary.csv",
        markdown="results/summary.md",
        html=report(
            "results/summary.html",
            caption="../workflow/report/summary.rst",
            category="Accuracy",
            labels={"table": "all scenes and runs"},
        ),
    log:
        "logs/summary.log",
    benchmark:
        "benchmarks/summary.tsv"
    conda:
        "../envs/special.yaml"
    params:
        files=lambda w, input: flags(
            {
                "scenes": dict(zip(SCENES, map(str, input.scenes))),
                "metrics": list(map(str, input.metrics)),
                "witnesses": [
                    {"scene": scene, "run": run, "path": str(path)}
                    for (scene, run, _), path in zip(witnesses(), input.witnesses)
                ],
                "diagnoses": [
                    {"scene": scene, "run": run, "path": str(path)}
                    for (scene, run), path in zip(diagnosed(), input.diagnoses)
                ],
            }
        ),
        code=digest_of("summary"),
    shell:
        "python -m special_steps.summary {params.files} --csv {output.csv}"
        " --markdown {output.markdown} --html {output.html} &> {log}"
