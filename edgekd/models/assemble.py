"""The networks of a recipe by name: models with their necks and grafts, and ensembles."""

from __future__ import annotations

from edgekd.models.build import build_network, model_seed
from edgekd.models.ensemble import EnsembleNet
from edgekd.models.neck import classifier_of
from edgekd.models.network import Network
from edgekd.recipe import Recipe
from edgekd.tasks.base import Task

ZERO, ONE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def assemble(
    recipe: Recipe,
    name: str,
    task: Task,
    *,
    initial: bool = False,
    new_head: bool = True,
    teacher: Network | None = None,
) -> Network:
    """Build a model or an ensemble of the recipe; its weights are loaded by whoever needs them.

    `initial` and `new_head` as in `build_network`. `teacher` gives its classifier to a grafted
    student; without it the classifier has its shape only. Raises RecipeError and what
    `build_network` raises.
    """
    if name in recipe.ensembles:
        members = [assemble(recipe, member, task) for member in recipe.ensembles[name]]
        return Network(EnsembleNet(members, exclusive=task.exclusive), mean=ZERO, std=ONE)
    spec = recipe.models[name]
    head = None
    if spec.graft is not None:
        origin = recipe.models[spec.graft].arch
        giver = teacher or assemble(recipe, spec.graft, task)
        head = classifier_of(giver.net, origin)
    network = build_network(
        spec,
        outputs=task_of(recipe, name, task).outputs(),
        seed=model_seed(recipe.seed, name),
        initial=initial,
        new_head=new_head,
        head=head,
    )
    network.classes = columns_of(recipe, name, task)
    return network


def task_of(recipe: Recipe, name: str, task: Task) -> Task:
    """What a model or an ensemble is asked: the recipe's task, about the classes that it knows.

    Raises RecipeError where the task's classes exclude each other and the model knows some only.
    """
    columns = columns_of(recipe, name, task)
    return task if columns is None else task.only(columns)


def columns_of(recipe: Recipe, name: str, task: Task) -> tuple[int, ...] | None:
    """The classes that a model knows, by their numbers; None where it knows all."""
    group = None if name in recipe.ensembles else recipe.models[name].classes
    if group is None:
        return None
    if group not in task.learned.groups:
        task.only(())  # exclusive classes are refused there
    return task.learned.groups[group]


def givers_first(recipe: Recipe, names: list[str]) -> list[str]:
    """Models in an order in which a grafted student comes after its teacher."""
    return sorted(names, key=lambda name: recipe.models[name].graft is not None)


def arch_of(recipe: Recipe, name: str) -> str:
    """What a model is built of, in words."""
    if name in recipe.ensembles:
        members = [recipe.models[member].arch for member in recipe.ensembles[name]]
        return f"ensemble of {', '.join(members)}"
    spec = recipe.models[name]
    if spec.graft is not None:
        return f"{spec.arch} with the classifier of {recipe.models[spec.graft].arch}"
    return spec.arch if spec.neck is None else f"{spec.arch} with a neck of {spec.neck.width}"
