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
                "reject": rejecting_stage(w.run, w.stage),
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
        table="results/{scene}/{run}/{folder}map.tif.aux.xml",
        style="results/{scene}/{run}/{folder}map.qml",
        confidence="results/{scene}/{run}/{folder}confidence.tif",
        probabilities="results/{scene}/{run}/{folder}probabilities.tif",
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
        settings=lambda w: flags(
            {
                "colours": SCENES[w.scene]["colours"],
                "networks": networks_asked(w.run, w.folder),
                "reject": rejecting(w.run, w.folder),
                "north_up": settings["export"]["north_up"],
            }
        ),
        code=digest_of("export"),
    shell:
        "python -m special_steps.export --prediction {input.prediction} --rgb {input.rgb}"
        " --class_map {output.classes} --confidence_map {output.confidence}"
        " --probability_map {output.probabilities} --style {output.style}"
        " --picture {output.picture} {params.settings} &> {log}"


rule disagreement:
    input:
        prediction=lambda w: f"results/{w.scene}/{w.run}/{exported(w.run)['']}.zarr",
        networks=lambda w: voting(w.scene, w.run),
    output:
        "results/{scene}/{run}/disagreement.tif",
    log:
        "logs/{scene}/{run}/disagreement.log",
    benchmark:
        "benchmarks/{scene}/{run}/disagreement.tsv"
    conda:
        "../envs/special.yaml"
    params:
        networks=lambda w: flags({"networks": voting(w.scene, w.run)}),
        settings=flags({"north_up": settings["export"]["north_up"]}),
        code=digest_of("disagreement"),
    shell:
        "python -m special_steps.disagreement --prediction {input.prediction} {params.networks}"
        " --out {output} {params.settings} &> {log}"


rule polygons:
    input:
        classes="results/{scene}/{run}/{folder}map.tif",
        confidence="results/{scene}/{run}/{folder}confidence.tif",
    output:
        polygons="results/{scene}/{run}/{folder}polygons.gpkg",
        style="results/{scene}/{run}/{folder}polygons.qml",
        areas="results/{scene}/{run}/{folder}areas.csv",
    log:
        "logs/{scene}/{run}/{folder}polygons.log",
    benchmark:
        "benchmarks/{scene}/{run}/{folder}polygons.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {
                "colours": SCENES[w.scene]["colours"],
                "min_area": settings["export"]["min_area"],
            }
        ),
        code=digest_of("polygons"),
    shell:
        "python -m special_steps.polygons --class_map {input.classes}"
        " --confidence_map {input.confidence} --out {output.polygons} --style {output.style}"
        " --table {output.areas} {params.settings} &> {log}"


rule presence:
    input:
        prediction=lambda w: f"results/{w.scene}/{w.run}/{exported(w.run)[w.folder]}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
    output:
        "results/{scene}/{run}/{folder}presence.json",
    log:
        "logs/{scene}/{run}/{folder}presence.log",
    benchmark:
        "benchmarks/{scene}/{run}/{folder}presence.tsv"
    conda:
        "../envs/special.yaml"
    params:
        code=digest_of("presence"),
    shell:
        "python -m special_steps.presence --prediction {input.prediction}"
        " --pseudo {input.pseudo} --out {output} &> {log}"


rule stac:
    input:
        files=lambda w: bundle(w.scene, w.run, w.folder),
        prediction=lambda w: f"results/{w.scene}/{w.run}/{exported(w.run)[w.folder]}.zarr",
        cube="results/{scene}/cube.zarr",
        model=lambda w: read_models(w.scene, w.run),
    output:
        "results/{scene}/{run}/{folder}stac-item.json",
    log:
        "logs/{scene}/{run}/{folder}stac.log",
    benchmark:
        "benchmarks/{scene}/{run}/{folder}stac.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {
                "files": bundle(w.scene, w.run, w.folder),
                "identifier": "-".join([w.scene, w.run, *w.folder.split("/")[:-1]]),
                "colours": SCENES[w.scene]["colours"],
                "prompts": prompts(w.scene, w.run),
            }
        ),
        code=digest_of("stac"),
    shell:
        "python -m special_steps.stac --prediction {input.prediction} --cube {input.cube}"
        " --out {output} {params.settings} &> {log}"


rule page:
    input:
        cube="results/{scene}/cube.zarr",
        rgb="results/{scene}/rgb.zarr",
        prediction=lambda w: f"results/{w.scene}/{w.run}/{exported(w.run)[w.folder]}.zarr",
        seeds=lambda w: page_inputs(w.scene, w.run, w.folder)["seeds"],
        evidence=lambda w: page_inputs(w.scene, w.run, w.folder)["evidence"],
        told=lambda w: page_inputs(w.scene, w.run, w.folder)["told"],
        metrics=lambda w: page_inputs(w.scene, w.run, w.folder)["metrics"],
        assessment=lambda w: page_inputs(w.scene, w.run, w.folder)["assessment"],
        tables=lambda w: [
            table
            for tables in page_inputs(w.scene, w.run, w.folder)["tables"].values()
            for table in tables
        ],
    output:
        "results/{scene}/{run}/{folder}index.html",
    log:
        "logs/{scene}/{run}/{folder}page.log",
    benchmark:
        "benchmarks/{scene}/{run}/{folder}page.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            page_inputs(w.scene, w.run, w.folder)
            | {
                "map_id": map_id(w.scene, w.run, exported(w.run)[w.folder]),
                "colours": SCENES[w.scene]["colours"],
                "reject": rejecting(w.run, w.folder),
                "config": config_of(settings, w.scene, w.run),
            }
        ),
        code=digest_of("page"),
    shell:
        "python -m special_steps.page --cube {input.cube} --rgb {input.rgb}"
        " --prediction {input.prediction} --out {output} {params.settings} &> {log}"


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
        settings=lambda w: flags({"colours": SCENES[w.scene]["colours"]}),
        code=digest_of("signatures"),
    shell:
        "python -m special_steps.signatures --table {input.table} --found {input.found}"
        " --picture {output} {params.settings} &> {log}"


rule assess:
    input:
        classes="results/{scene}/{run}/{folder}map.tif",
        reference=lambda w: reference_files(w.scene),
    output:
        scores="results/{scene}/{run}/{folder}assessment.json",
        table="results/{scene}/{run}/{folder}assessment.csv",
    log:
        "logs/{scene}/{run}/{folder}assess.log",
    benchmark:
        "benchmarks/{scene}/{run}/{folder}assess.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {"map_id": map_id(w.scene, w.run, exported(w.run)[w.folder])}
        ),
        code=digest_of("assess"),
    shell:
        "python -m special_steps.assess {input.classes} {input.reference[0]}"
        " --scores {output.scores} --table {output.table} {params.settings} &> {log}"


rule summary:
    input:
        scenes=[f"results/{scene}/cube.zarr" for scene in SCENES],
        metrics=all_metrics(),
        witnesses=[path for _, _, path in witnesses() + presences()],
        diagnoses=[f"results/{s}/{r}/cotrain.json" for s, r in diagnosed()],
        assessments=[path for _, _, path in assessments()],
        areas=[f"results/{s}/{r}/areas.csv" for s, r, _ in unknown()],
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
                    for (scene, run, _), path in zip(
                        witnesses() + presences(), input.witnesses
                    )
                ],
                "diagnoses": [
                    {"scene": scene, "run": run, "path": str(path)}
                    for (scene, run), path in zip(diagnosed(), input.diagnoses)
                ],
                "assessments": [path for _, _, path in assessments()],
                "unknown": [
                    {"scene": scene, "run": run, "reject": reject, "areas": str(path)}
                    for (scene, run, reject), path in zip(unknown(), input.areas)
                ],
                "maps": linked(),
            }
        ),
        code=digest_of("summary"),
    shell:
        "python -m special_steps.summary {params.files} --csv {output.csv}"
        " --markdown {output.markdown} --html {output.html} &> {log}"
