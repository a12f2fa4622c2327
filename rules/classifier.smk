rule features:
    input:
        lambda w: f"results/{w.scene}/{'cube' if w.input == 'hsi' else 'rgb'}.zarr",
    output:
        directory("results/{scene}/features-{input}.zarr"),
    log:
        "logs/{scene}/features-{input}.log",
    benchmark:
        "benchmarks/{scene}/features-{input}.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags(
            {
                "input": w.input,
                "percentiles": settings["features"]["stretch"],
                "components": settings["features"]["components"],
            }
        ),
        code=digest_of("features"),
    shell:
        "python -m special_steps.features --source {input} --out {output}"
        " {params.settings} &> {log}"


rule cotrain:
    input:
        features=lambda w: f"results/{w.scene}/features-{RUNS[w.run]['input']}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
    output:
        prediction=directory("results/{scene}/{run}/cotrain.zarr"),
        diagnosis="results/{scene}/{run}/cotrain.json",
    log:
        "logs/{scene}/{run}/cotrain.log",
    benchmark:
        "benchmarks/{scene}/{run}/cotrain.tsv"
    conda:
        "../envs/special.yaml"
    params:
        code=digest_of("cotrain"),
    shell:
        "python -m special_steps.cotrain --features {input.features} --pseudo {input.pseudo}"
        " --out {output.prediction} --diagnosis {output.diagnosis} &> {log}"


rule network:
    input:
        features=lambda w: f"results/{w.scene}/features-{RUNS[w.run]['input']}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
        cotrain="results/{scene}/{run}/cotrain.zarr",
    output:
        prediction=directory("results/{scene}/{run}/seed-{seed}/network.zarr"),
        state="results/{scene}/{run}/seed-{seed}/network.safetensors",
        epochs="results/{scene}/{run}/seed-{seed}/network.csv",
    log:
        "logs/{scene}/{run}/seed-{seed}/network.log",
    benchmark:
        "benchmarks/{scene}/{run}/seed-{seed}/network.tsv"
    conda:
        "../envs/special.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        checkpoint=lambda w: f"results/{w.scene}/{w.run}/seed-{w.seed}/.network.safetensors",
        settings=lambda w: flags(
            {
                "classifier": RUNS[w.run]["classifier"],
                "training": RUNS[w.run]["network"],
            }
        ),
        code=digest_of("network"),
    shell:
        "python -m special_steps.network --features {input.features} --pseudo {input.pseudo}"
        " --cotrain {input.cotrain} --seed {wildcards.seed} --checkpoint {params.checkpoint}"
        " --out {output.prediction} --state {output.state} --epochs {output.epochs}"
        " {params.settings} &> {log}"


rule consensus:
    input:
        cotrain=lambda w: cotrained(w.scene, w.run),
        pseudo=lambda w: uncalibrated(w.scene, w.run),
        networks=lambda w: voting(w.scene, w.run),
    output:
        directory("results/{scene}/{run}/consensus.zarr"),
    log:
        "logs/{scene}/{run}/consensus.log",
    benchmark:
        "benchmarks/{scene}/{run}/consensus.tsv"
    conda:
        "../envs/special.yaml"
    params:
        stores=lambda w: flags(
            {
                "cotrain": next(iter(cotrained(w.scene, w.run)), None),
                "pseudo": next(iter(uncalibrated(w.scene, w.run)), None),
                "networks": voting(w.scene, w.run),
            }
        ),
        code=digest_of("consensus"),
    shell:
        "python -m special_steps.consensus {params.stores} --out {output} &> {log}"


rule baseline:
    input:
        features=lambda w: f"results/{w.scene}/features-{RUNS[w.run]['input']}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
    output:
        directory("results/{scene}/{run}/baseline.zarr"),
    log:
        "logs/{scene}/{run}/baseline.log",
    benchmark:
        "benchmarks/{scene}/{run}/baseline.tsv"
    conda:
        "../envs/special.yaml"
    params:
        settings=lambda w: flags({"method": RUNS[w.run]["method"]}),
        code=digest_of("baseline"),
    shell:
        "python -m special_steps.baseline --features {input.features} --pseudo {input.pseudo}"
        " --out {output} {params.settings} &> {log}"


rule warmup:
    input:
        features=lambda w: f"results/{w.scene}/features-{RUNS[w.run]['input']}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
    output:
        prediction=directory("results/{scene}/{run}/seed-{seed}/warmup.zarr"),
        state="results/{scene}/{run}/seed-{seed}/warmup.safetensors",
        epochs="results/{scene}/{run}/seed-{seed}/warmup.csv",
    log:
        "logs/{scene}/{run}/seed-{seed}/warmup.log",
    benchmark:
        "benchmarks/{scene}/{run}/seed-{seed}/warmup.tsv"
    conda:
        "../envs/special.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        checkpoint=lambda w: f"results/{w.scene}/{w.run}/seed-{w.seed}/.warmup.safetensors",
        settings=lambda w: flags(
            {k: RUNS[w.run][k] for k in ("classifier", "training")}
        ),
        code=digest_of("warmup"),
    shell:
        "python -m special_steps.warmup --features {input.features} --pseudo {input.pseudo}"
        " --seed {wildcards.seed} --checkpoint {params.checkpoint} --out {output.prediction}"
        " --state {output.state} --epochs {output.epochs} {params.settings} &> {log}"


rule refine:
    input:
        features=lambda w: f"results/{w.scene}/features-{RUNS[w.run]['input']}.zarr",
        pseudo="results/{scene}/{run}/pseudo.zarr",
        warmup="results/{scene}/{run}/seed-{seed}/warmup.safetensors",
    output:
        prediction=directory("results/{scene}/{run}/seed-{seed}/final.zarr"),
        state="results/{scene}/{run}/seed-{seed}/final.safetensors",
        epochs="results/{scene}/{run}/seed-{seed}/refine.csv",
    log:
        "logs/{scene}/{run}/seed-{seed}/refine.log",
    benchmark:
        "benchmarks/{scene}/{run}/seed-{seed}/refine.tsv"
    conda:
        "../envs/special.yaml"
    threads: 8
    resources:
        gpu=1,
    params:
        checkpoint=lambda w: f"results/{w.scene}/{w.run}/seed-{w.seed}/.refine.safetensors",
        settings=lambda w: flags(
            {k: RUNS[w.run][k] for k in ("classifier", "training")}
            | {"refinement": RUNS[w.run]["refine"]}
        ),
        code=digest_of("refine"),
    shell:
        "python -m special_steps.refine --features {input.features} --pseudo {input.pseudo}"
        " --warmup {input.warmup} --seed {wildcards.seed} --checkpoint {params.checkpoint}"
        " --out {output.prediction} --state {output.state} --epochs {output.epochs}"
        " {params.settings} &> {log}"
